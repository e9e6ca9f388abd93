"""What the short `--help` of every command shows: an example to copy, and the settings that most users set."""

from hf_nasbert.help_pages import Guide

_TEXT = ("train_files", "dataset_name", "packaged")
_LABELS = ("train_file", "validation_file", "test_file", "dataset_name")
_STEPS = ("learning_rate", "max_steps", "seed")
_CAPS = ("max_parameters", "max_flops", "max_latency", "latency_table")
_COMPRESS = (
    "train_files",
    "train_file",
    "task",
    "max_latency",
    "max_parameters",
    "budgets",
    "recovery_steps",
    "trim_vocabulary",
    "int8",
    "handmade",
    "pairs_file",
    "max_time",
)
_FINETUNE = (
    *_LABELS,
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "max_seq_length",
    "seeds",
    "batch_size",
    "max_time",
)

GUIDES = {
    "run": Guide(
        "hf-nasbert run --preset quickstart --train_files my.txt --max_steps 1000 --output_dir runs/mine",
        (
            "preset",
            *_TEXT,
            "method",
            "max_steps",
            "max_parameters",
            "max_latency",
            "native_only",
            "train_file",
            "control",
            "max_time",
        ),
    ),
    "compress": Guide(
        "hf-nasbert compress --base_model my-encoder --train_files my.txt --max_latency 0.5x --output_dir small",
        _COMPRESS,
    ),
    "plan-compress": Guide(
        "hf-nasbert plan-compress --base_model my-encoder --train_files my.txt --max_latency 0.5x --output_dir small",
        _COMPRESS[:-1],  # a plan has no time limit
    ),
    "plan": Guide(
        "hf-nasbert plan --max_parameters 1.5M --minutes 15",
        ("minutes", "train_files", "vocab_size", "max_seq_length", "per_device_train_batch_size"),
    ),
    "pretrain": Guide(
        "hf-nasbert pretrain --preset quickstart --train_files my.txt --max_steps 1000 --output_dir supernet",
        (
            "preset",
            "base_model",
            "operators",
            "num_choice_blocks",
            "hidden_size",
            *_TEXT,
            "vocab_size",
            "max_seq_length",
            "method",
            *_STEPS,
            "per_device_train_batch_size",
            "save_steps",
            "resume_from_checkpoint",
            "max_time",
        ),
    ),
    "score": Guide(
        "hf-nasbert score --supernet supernet --num_random 1000 --output scores.jsonl",
        ("num_random", "all_children", "architectures", "num_dev_batches", *_TEXT, "latency_table", "max_time"),
    ),
    "search": Guide(
        "hf-nasbert search --supernet supernet --max_parameters 0.7x --output found.jsonl",
        ("search", "num_evaluations", *_CAPS, "native_only", "report", "num_dev_batches", *_TEXT, "max_time"),
    ),
    "report": Guide(
        "hf-nasbert report --records found.jsonl --supernet supernet --output found.html", ("supernet", "other")
    ),
    "shrink-space": Guide(
        "hf-nasbert shrink-space --supernet supernet --records scores.jsonl --output smaller.yaml",
        ("records", "table", "min_candidates", "max_dropped"),
    ),
    "latency": Guide(
        "hf-nasbert latency --supernet supernet --output latency.jsonl",
        ("batch_size", "max_seq_length", "device", "dtype", "num_threads"),
    ),
    "extract": Guide(
        "hf-nasbert extract --supernet supernet --search found.jsonl --best --output_dir child",
        ("architecture", "search", "best", "rank", "native", "overwrite"),
    ),
    "export": Guide("hf-nasbert export --model child --output_dir child-onnx", ("tokenizer_name",)),
    "pretrain-child": Guide(
        "hf-nasbert pretrain-child --model child --output_dir trained",
        (*_TEXT, *_STEPS, "batch_size", "teacher", "num_dev_batches", "max_time"),
    ),
    "finetune": Guide(
        "hf-nasbert finetune --model child --train_file labelled.csv --output_dir finetuned",
        ("task", "packaged", "label_column", "text_columns", *_FINETUNE),
    ),
    "finetune-squad": Guide(
        "hf-nasbert finetune-squad --model child --dataset_name rajpurkar/squad --output_dir squad",
        ("doc_stride", "max_answer_length", *_FINETUNE),
    ),
    "finetune-tokens": Guide(
        "hf-nasbert finetune-tokens --model child --train_file tagged.jsonl --output_dir tagger",
        ("tokens_column", "tags_column", *_FINETUNE),
    ),
    "train-children": Guide(
        "hf-nasbert train-children --table table.jsonl --blocks attention,ffn conv3,ffn --train_files my.txt",
        (*_TEXT, "num_children", "num_workers", "hidden_size", "max_steps", "learning_rate", "max_time"),
    ),
    "rank-children": Guide(
        "hf-nasbert rank-children --table imdb --supernets supernet --packaged imdb --scores ranked.jsonl",
        (*_TEXT, "label", "figures", "adapt_steps"),
    ),
    "report-ranking": Guide(
        "hf-nasbert report-ranking --table imdb --scores ranked.jsonl --figures figures",
        ("figures", "page", "baseline", "containing"),
    ),
    "measure-interference": Guide(
        "hf-nasbert measure-interference --supernets supernet --train_files my.txt --output measured.jsonl",
        (*_TEXT, "untrained", "num_children", "num_dev_batches"),
    ),
    "report-interference": Guide(
        "hf-nasbert report-interference --measured measured.jsonl --figures figures", ("page", "figures")
    ),
    "push": Guide(
        "hf-nasbert push --source child --repo_id user/my-child --private --dry_run",
        ("private", "dry_run", "overwrite", "create_pr", "revision"),
    ),
    "pull": Guide("hf-nasbert pull --repo_id user/my-child --output_dir my-child", ("revision", "overwrite")),
}

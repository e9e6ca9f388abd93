"""The tools around transformers, tried on a child's folder whose code comes with it: nothing of ours is registered.

A tool of the extra "tools" that is not installed skips its test by name.
"""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import infer_auto_device_map, init_empty_weights, load_checkpoint_and_dispatch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_nasbert.child_folders import save_child
from hf_nasbert.data import PACKAGED_SOURCES, load_labelled, train_tokenizer
from hf_nasbert.data.packaged import INSTALL_COMMAND
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM
from hf_nasbert.native import CODE_FILES

pytestmark = pytest.mark.slow

THINGS = "film plot actor music scene ending story cast".split()
OPINIONS = {0: "bad awful poor dull boring weak".split(), 1: "good great fine lovely funny strong".split()}
SENTENCES = [
    (f"the {thing} {verb} {opinion}", label)
    for label, opinions in OPINIONS.items()
    for thing, verb, opinion in itertools.product(THINGS, ("was", "seemed"), opinions)
]
TRUSTED = {"trust_remote_code": True}


def few_and_rest(num_few: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Sentences with their labels, as many of either label: a few to learn from, the rest to be judged on."""
    shuffled = random.Random(seed).sample(SENTENCES, len(SENTENCES))
    few = [one for label in OPINIONS for one in [row for row in shuffled if row[1] == label][: num_few // 2]]
    rest = [one for one in shuffled if one not in few]
    return tuple(
        Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
        for rows in (few, rest)
    )


def save_new_child(folder: Path, texts: list[str]) -> str:
    """The folder of a masked-LM child with every kind of operator, none of its norms and biases at its first value."""
    tokenizer = train_tokenizer(texts, vocab_size=1000, model_max_length=32)
    config = NasBertConfig(
        operators=["conv3", "attention", "ffn", "attention"],
        vocab_size=len(tokenizer),
        hidden_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    model = NasBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return str(save_child(model, tokenizer, folder))


@pytest.fixture(scope="module")
def child(tmp_path_factory) -> str:
    texts = [text for text, _ in SENTENCES] + ["what was it like ?"]
    return save_new_child(tmp_path_factory.mktemp("tools") / "child", texts)


@pytest.fixture(scope="module")
def tokenizer(child) -> BertTokenizer:
    return BertTokenizer.from_pretrained(child)


@pytest.fixture(autouse=True)
def abroad(monkeypatch) -> None:
    """Transformers as it is where nobody has imported our classes: a child must bring its own."""
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})
    torch.manual_seed(0)  # what new heads are drawn from


def is_its_own(model: torch.nn.Module) -> bool:
    """Whether a model's code came out of its folder."""
    return type(model).__module__.startswith("transformers_modules.")


def arguments(folder, **changes) -> TrainingArguments:
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "learning_rate": 3e-3, "num_train_epochs": 3,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    return TrainingArguments(**settings | changes)


def tokenized(dataset: Dataset, tokenizer) -> Dataset:
    return dataset.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns="text")


class TestPipelines:
    TEXTS = ("the film was good", "the ending of the story seemed awful and boring")

    @pytest.mark.parametrize("device", ["cpu", -1, torch.device("cpu")], ids=str)
    def test_fill_mask(self, child, tokenizer, device):
        fill_mask = pipeline("fill-mask", child, device=device, **TRUSTED)
        assert is_its_own(fill_mask.model)
        assert fill_mask.device == torch.device("cpu")
        found = fill_mask("the film was [MASK]", top_k=3)
        batch = tokenizer("the film was [MASK]", return_tensors="pt")
        logits = fill_mask.model(**batch).logits[0, batch["input_ids"][0] == tokenizer.mask_token_id]
        best = logits.softmax(-1).topk(3)
        assert [one["token"] for one in found] == best.indices[0].tolist()
        assert [one["score"] for one in found] == pytest.approx(best.values[0].tolist())

    def test_text_classification(self, child, tokenizer):
        classify = pipeline("text-classification", child, device="cpu", **TRUSTED)
        assert is_its_own(classify.model)
        found = classify(list(self.TEXTS), top_k=None, batch_size=2)
        logits = classify.model(**tokenizer(list(self.TEXTS), padding=True, return_tensors="pt")).logits
        for scores, expected in zip(found, logits.softmax(-1), strict=True):
            assert {one["label"]: one["score"] for one in scores} == pytest.approx(
                {f"LABEL_{label}": value for label, value in enumerate(expected.tolist())}
            )
        assert found[0] != found[1]

    def test_token_classification(self, child, tokenizer):
        tag = pipeline("token-classification", child, device="cpu", **TRUSTED)
        assert is_its_own(tag.model)
        found = tag(self.TEXTS[1])
        logits = tag.model(**tokenizer(self.TEXTS[1], return_tensors="pt")).logits[0, 1:-1]
        assert [one["entity"] for one in found] == [f"LABEL_{label}" for label in logits.argmax(-1)]
        assert "".join(self.TEXTS[1][one["start"] : one["end"]] for one in found) == self.TEXTS[1].replace(" ", "")
        grouped = tag(self.TEXTS[1], aggregation_strategy="simple")
        assert 1 <= len(grouped) <= len(found)

    def test_feature_extraction(self, child, tokenizer):
        extract = pipeline("feature-extraction", child, device="cpu", **TRUSTED)
        assert is_its_own(extract.model)
        found = extract(list(self.TEXTS), return_tensors=True, batch_size=2)
        for text, states in zip(self.TEXTS, found, strict=True):
            expected = extract.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            num_tokens = len(expected)  # in a batch the shorter text is padded, which must not change its states
            torch.testing.assert_close(states[0, :num_tokens], expected, rtol=1e-4, atol=1e-5)


def test_question_answering_by_the_model_class(child, tokenizer, tmp_path):
    """Transformers 5.23 has no such pipeline: the class is trained with Trainer and read by hand."""
    with pytest.raises(KeyError, match="question-answering has been removed"):
        pipeline("question-answering", child, **TRUSTED)

    def ask(text: str) -> dict:
        return tokenizer("what was it like ?", text, return_offsets_mapping=True, padding="max_length", max_length=16)

    rows = []
    for text, _ in SENTENCES:
        encoded = ask(text)
        starts = [start for start, _ in encoded.pop("offset_mapping")]
        at = max(place for place, start in enumerate(starts) if start == text.rindex(" ") + 1)
        rows.append({**encoded, "start_positions": at, "end_positions": at})
    random.Random(0).shuffle(rows)
    model = AutoModelForQuestionAnswering.from_pretrained(child, **TRUSTED)
    assert is_its_own(model)
    Trainer(model, arguments(tmp_path), train_dataset=Dataset.from_list(rows)).train()
    text = "the story seemed lovely"
    encoded = ask(text)
    offsets = encoded.pop("offset_mapping")
    with torch.no_grad():
        output = model.eval()(**{name: torch.tensor([values]) for name, values in encoded.items()})
    start, end = (int(logits.argmax()) for logits in (output.start_logits, output.end_logits))
    assert text[offsets[start][0] : offsets[end][1]] == "lovely"


def test_trainer(child, tokenizer, tmp_path):
    """Training, evaluation, a checkpoint to go on from, the final folder: all on the child's own code."""
    train, test = (tokenized(part, tokenizer) for part in few_and_rest(96))

    def trainer(folder: str, **changes) -> Trainer:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(child, **TRUSTED)
        return Trainer(
            model,
            arguments(tmp_path / folder, **changes),
            train_dataset=train,
            eval_dataset=test,
            processing_class=tokenizer,
            compute_metrics=lambda found: {"accuracy": (found[0].argmax(-1) == found[1]).mean()},
        )

    unbroken = trainer("unbroken")
    assert is_its_own(unbroken.model)
    before = unbroken.evaluate()
    unbroken.train()
    after = unbroken.evaluate()
    assert before["eval_accuracy"] < 0.8
    assert after["eval_accuracy"] > 0.95
    assert after["eval_loss"] < before["eval_loss"] / 2

    stopped = trainer("stopped", save_strategy="steps", save_steps=12)
    stopped.train()
    resumed = trainer("stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-12"))
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name

    unbroken.save_model(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", **TRUSTED).eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "saved")(["the cast was weak"], return_tensors="pt")
    assert is_its_own(again)
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, unbroken.model.eval()(**batch).logits)
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def sentence_pairs(name: str) -> tuple[Dataset, Dataset]:
    """Pairs of sentences with a similarity from 0 to 1: ours, alike where their opinions are, or the STS benchmark."""
    if name == "stsb":
        try:
            pairs = load_labelled("stsb")
        except FileNotFoundError:
            pytest.skip(f"{PACKAGED_SOURCES['stsb'].distribution} is not installed: {INSTALL_COMMAND}")
        return tuple(
            pairs[split].select(range(size)).map(lambda row: {"label": row["label"] / 5})
            for split, size in (("train", 512), ("validation", 200))
        )
    few, rest = few_and_rest(96)
    rng = random.Random(0)

    def paired(rows: Dataset, size: int) -> Dataset:
        drawn = [rng.sample(list(zip(rows["text"], rows["label"], strict=True)), 2) for _ in range(size)]
        columns = {
            "sentence1": [first for (first, _), _ in drawn],
            "sentence2": [second for _, (second, _) in drawn],
            "label": [float(one == other) for (_, one), (_, other) in drawn],
        }
        return Dataset.from_dict(columns)

    return paired(few, 384), paired(rest, 100)


def sentence_model(child: str):
    """A child with mean pooling on top."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason='pip install -e ".[tools]"')
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    words = Transformer(child, model_kwargs=TRUSTED, config_kwargs=TRUSTED, processor_kwargs=TRUSTED)
    pooling = Pooling(words.get_embedding_dimension())
    return sentence_transformers.SentenceTransformer(modules=[words, pooling], device="cpu")


@pytest.mark.parametrize("data", ["made", "stsb"])
def test_sentence_transformers(child, tmp_path, data):
    """One epoch on sentence pairs, then encoding; saved and loaded again."""
    pytest.importorskip("sentence_transformers", reason='pip install -e ".[tools]"')
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    train, test = sentence_pairs(data)
    if data == "stsb":  # which has words of its own
        child = save_new_child(tmp_path / "child", train["sentence1"][:] + train["sentence2"][:])
    model = sentence_model(child)
    assert is_its_own(model[0].auto_model)
    judge = EmbeddingSimilarityEvaluator(test["sentence1"], test["sentence2"], test["label"])
    before = judge(model)["spearman_cosine"]
    settings = arguments(tmp_path / "run", num_train_epochs=1, per_device_train_batch_size=16).to_dict()
    names = ("output_dir", "num_train_epochs", "per_device_train_batch_size", "learning_rate", "logging_steps",
             "save_strategy", "report_to", "use_cpu", "disable_tqdm")  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**{name: settings[name] for name in names}),
        train_dataset=train,
        loss=CosineSimilarityLoss(model),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-5:]) < sum(losses[:5])
    after = judge(model)["spearman_cosine"]
    assert after > before + 0.05
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", **TRUSTED)
    assert is_its_own(again[0].auto_model)
    texts = ["the film was good", "the cast seemed weak and the plot was dull"]
    embeddings = model.encode(texts)
    assert embeddings.shape == (2, 64)
    assert (again.encode(texts) == embeddings).all()
    # Padding must not leak into pooled states.
    assert abs(model.encode(texts[0]) - embeddings[0]).max() < 1e-5


def fit(model: torch.nn.Module, batch: dict[str, torch.Tensor], learning_rate: float) -> list[float]:
    """The losses of sixty steps, on one batch, of whatever is to be trained; the model is in evaluation mode then."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    model.train()
    losses = []
    for _ in range(60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


class TestPeft:
    @pytest.fixture
    def make(self, child):
        def make(seed: int = 0):
            torch.manual_seed(seed)  # the head and the pooler are new: other ones under another seed
            return AutoModelForSequenceClassification.from_pretrained(child, **TRUSTED)

        return make

    @pytest.mark.parametrize(
        ("targets", "num_adapted"),
        [(["query", "value"], 4), (["dense"], 2 + 2 + 2), ("all-linear", 2 + 2 * 4 + 2)],
        ids=["query-value", "dense", "all-linear"],
    )
    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft 0.21 asks it
    def test_lora(self, make, tokenizer, tmp_path, targets, num_adapted):
        peft = pytest.importorskip("peft", reason='pip install -e ".[tools]"')
        base = make()
        assert is_its_own(base)
        frozen = {name: value.clone() for name, value in base.state_dict().items()}
        # A child saved with its masked-LM head has no pooler: the new one is trained, and must be saved.
        config = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS, r=4, target_modules=targets, modules_to_save=["classifier", "pooler"]
        )
        model = peft.get_peft_model(base, config)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name in trained if "modules_to_save" not in name} == {
            name for name, _ in model.named_parameters() if "lora_" in name
        }
        adapted = {name.partition(".lora_")[0] for name in trained if "lora_" in name and "modules_to" not in name}
        assert len(adapted) == num_adapted, sorted(adapted)

        few, _ = few_and_rest(32)
        batch = tokenizer(few["text"][:], padding=True, return_tensors="pt")
        losses = fit(model, {**batch, "labels": torch.tensor(few["label"][:])}, learning_rate=5e-3)
        assert losses[-1] < losses[0] / 2
        with torch.no_grad():
            expected = model(**batch).logits
        for name, value in model.get_base_model().state_dict().items():
            plain = name.replace("base_layer.", "")
            if plain in frozen and not plain.startswith(("classifier", "nasbert.pooler")):
                assert torch.equal(value, frozen[plain]), f"{name} is no adapter, and moved"

        model.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(make(seed=1), tmp_path).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(**batch).logits, expected)
            with loaded.disable_adapter():
                assert not torch.allclose(loaded(**batch).logits, expected, atol=1e-2)
        merged = loaded.merge_and_unload()
        assert is_its_own(merged)
        merged.save_pretrained(tmp_path / "merged")
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", **TRUSTED).eval()
        with torch.no_grad():
            torch.testing.assert_close(again(**batch).logits, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("method", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
    def test_learned_prompts(self, make, tokenizer, tmp_path, method):
        """Prompt tuning, p-tuning, prefix tuning: their sizes come from the config, the child stays as it is."""
        peft = pytest.importorskip("peft", reason='pip install -e ".[tools]"')

        def make_outspoken():
            """New weights are so small that the frozen layers would pass hardly anything on."""
            base = make()
            with torch.no_grad():
                for name, parameter in base.named_parameters():
                    if parameter.dim() == 2 and not name.startswith("classifier"):
                        parameter.mul_(8)
            return base

        base = make_outspoken()
        frozen = {name: value.clone() for name, value in base.state_dict().items()}
        model = peft.get_peft_model(base, getattr(peft, method)(task_type="SEQ_CLS", num_virtual_tokens=4))
        few, _ = few_and_rest(32)
        batch = tokenizer(few["text"][:], padding=True, return_tensors="pt")
        prompts = [p for name, p in model.named_parameters() if p.requires_grad and "prompt_encoder" in name]
        before = [prompt.detach().clone() for prompt in prompts]
        losses = fit(model, {**batch, "labels": torch.tensor(few["label"][:])}, learning_rate=3e-2)
        assert losses[-1] < 0.8 * losses[0]
        assert not any(map(torch.equal, prompts, before))
        for name, value in model.get_base_model().state_dict().items():
            if name in frozen and not name.startswith("classifier"):
                assert torch.equal(value, frozen[name]), f"{name} is no prompt, and moved"
        with torch.no_grad():
            expected = model(**batch).logits
            model.save_pretrained(tmp_path)
            for prompt, value in zip(prompts, before, strict=True):  # what was learnt is read
                prompt.copy_(value)
            assert not torch.allclose(model(**batch).logits, expected, atol=1e-2)
        loaded = peft.PeftModel.from_pretrained(make_outspoken(), tmp_path).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(**batch).logits, expected)


@pytest.mark.filterwarnings(
    "ignore:'pin_memory' argument is set as true:UserWarning"
)  # setfit leaves no way to say so
def test_setfit(child, tmp_path):
    """Eight sentences of either opinion teach the others."""
    setfit = pytest.importorskip("setfit", reason='pip install -e ".[tools]"')
    few, rest = few_and_rest(16)
    sentence_model(child).save_pretrained(str(tmp_path / "body"))
    model = setfit.SetFitModel.from_pretrained(str(tmp_path / "body"), device="cpu", **TRUSTED)
    assert is_its_own(model.model_body[0].auto_model)
    settings = setfit.TrainingArguments(
        output_dir=str(tmp_path / "run"),
        batch_size=16,
        num_epochs=4,
        body_learning_rate=2e-3,
        report_to="none",
        show_progress_bar=False,
        save_strategy="no",
    )
    trainer = setfit.Trainer(
        model=model,
        args=settings,
        train_dataset=few,
        metric=lambda found, labels: {
            "accuracy": sum(map(int.__eq__, map(int, found), map(int, labels))) / len(labels)
        },
        eval_dataset=rest,
    )
    trainer.train()
    assert trainer.evaluate()["accuracy"] > 0.8
    model.save_pretrained(str(tmp_path / "saved"))
    again = setfit.SetFitModel.from_pretrained(str(tmp_path / "saved"), device="cpu", **TRUSTED)
    texts = rest["text"][:5]
    assert torch.equal(again.predict_proba(texts), model.predict_proba(texts))


class TestAccelerate:
    @pytest.fixture
    def expected(self, child, tokenizer):
        batch = tokenizer([text for text, _ in SENTENCES[::40]], padding=True, return_tensors="pt")
        model = AutoModelForMaskedLM.from_pretrained(child, **TRUSTED).eval()
        with torch.no_grad():
            return batch, model(**batch).logits

    @staticmethod
    def empty(child):
        config = AutoConfig.from_pretrained(child, **TRUSTED)
        with init_empty_weights():
            model = AutoModelForMaskedLM.from_config(config, **TRUSTED)
        model.tie_weights()
        assert is_its_own(model)
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        return model.eval()

    @pytest.mark.parametrize("max_shard_size", ["1GB", "100KB"])
    def test_big_model_loading(self, child, expected, tmp_path, max_shard_size):
        """From one file or from shards, part of it kept on disk: the same logits, to the bit."""
        batch, logits = expected
        AutoModelForMaskedLM.from_pretrained(child, **TRUSTED).save_pretrained(
            tmp_path / "shards", max_shard_size=max_shard_size
        )
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) == 1 or max_shard_size == "100KB"
        model = self.empty(child)
        places = {"nasbert.embeddings": "cpu", "lm_head": "cpu", "nasbert.encoder": "disk"}
        model = load_checkpoint_and_dispatch(
            model, str(tmp_path / "shards"), device_map=places, offload_folder=str(tmp_path / "offloaded")
        )
        assert any(parameter.device.type == "meta" for parameter in model.parameters()), "nothing was left on disk"
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, logits)

    def test_an_automatic_map_splits_no_block(self, child, expected, tmp_path):
        """With too little memory whole blocks go to disk: a block's residual and its operator stay together."""
        batch, logits = expected
        model = self.empty(child)
        total = sum(parameter.numel() * 4 for parameter in model.parameters())
        largest = max(sum(p.numel() * 4 for p in block.parameters()) for block in model.nasbert.encoder.blocks)
        mixed = []
        # Bytes: some of these end in the middle of a block. Nearer to all or to nothing, where tied weights just do
        # not fit, accelerate 1.15 ends in an IndexError of its own.
        for room in range(total - largest + 4000, total, 6000):
            places = infer_auto_device_map(
                model, max_memory={"cpu": room}, no_split_module_classes=model._no_split_modules
            )
            blocks = {name: place for name, place in places.items() if name.startswith("nasbert.encoder.blocks.")}
            assert all(name.count(".") == 3 for name in blocks), blocks
            mixed += [places] if set(blocks.values()) == {"cpu", "disk"} else []
        places = mixed[0]
        model = load_checkpoint_and_dispatch(model, child, device_map=places, offload_folder=str(tmp_path))
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, logits)

    def test_device_map_of_transformers(self, child, expected):
        batch, logits = expected
        model = AutoModelForMaskedLM.from_pretrained(child, device_map="auto", **TRUSTED)
        assert is_its_own(model)
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, logits)


# The example scripts ask the Hub for these; a folder of that name where they run is found first.
METRICS = {
    "accuracy": (
        '{"predictions": Value("int64"), "references": Value("int64")}',
        '{"accuracy": sum(a == b for a, b in zip(predictions, references)) / len(references)}',
    ),
    "squad": (
        '{"predictions": {"id": Value("string"), "prediction_text": Value("string")}, "references": {"id": '
        'Value("string"), "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))}}}',
        '{"exact_match": 100 * sum(a["prediction_text"] in b["answers"]["text"] for a, b in zip(predictions, '
        "references)) / len(references)}",
    ),
    "seqeval": (
        '{"predictions": List(Value("string")), "references": List(Value("string"))}',
        'dict.fromkeys(["overall_precision", "overall_recall", "overall_f1", "overall_accuracy"], sum(a == b for '
        "a, b in zip(predictions, references)) / len(references))",
    ),
}
METRIC = """
import evaluate
from datasets import Features, List, Value

class Own(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(description="", citation="", features=Features({features}))

    def _compute(self, predictions, references):
        return {result}
"""


def glue_row(text: str, label: int) -> dict:
    return {"sentence": text, "label": label}


def qa_row(text: str, label: int) -> dict:
    answer = text.rsplit(" ", 1)[1]
    answers = {"text": [answer], "answer_start": [text.rindex(answer)]}
    return {"id": text, "context": text, "question": "what was it like ?", "answers": answers}


def ner_row(text: str, label: int) -> dict:
    words = text.split()
    return {"tokens": words, "ner_tags": ["O"] * (len(words) - 1) + [f"B-{'BAD GOOD'.split()[label]}"]}


# Script, its rows (one JSON object a line), settings, and the least value of what it says of held-out rows.
EXAMPLES = {
    "text-classification/run_glue.py": (glue_row, ["--max_seq_length", "16"], "eval_accuracy", 0.9),
    "token-classification/run_ner.py": (ner_row, [], "eval_accuracy", 0.9),
    "question-answering/run_qa.py": (qa_row, ["--max_seq_length", "32", "--doc_stride", "8"], "eval_exact_match", 80),
    "language-modeling/run_mlm.py": (
        lambda text, label: {"text": text},
        ["--max_seq_length", "32", "--line_by_line"],
        "eval_accuracy",
        0.3,
    ),
}


@pytest.mark.parametrize("script", EXAMPLES)
def test_example_script(child, tmp_path, script):
    """Transformers' own example script, as it is, in a fresh process that knows the child's folder only."""
    examples = os.environ.get("TRANSFORMERS_EXAMPLES")
    if examples is None or not Path(examples, script).is_file():
        pytest.skip(
            f"set TRANSFORMERS_EXAMPLES to the folder examples/pytorch of transformers' repository that holds {script}"
        )
    make_row, settings, metric, least = EXAMPLES[script]
    for name, part in zip(("train", "validation"), few_and_rest(144), strict=True):
        rows = [make_row(text, label) for text, label in zip(part["text"], part["label"], strict=True)]
        content = json.dumps({"data": rows}) if make_row is qa_row else "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.json").write_text(content)
    for name, (features, result) in METRICS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(METRIC.format(features=features, result=result))
    command = [
        *(sys.executable, Path(examples, script), "--model_name_or_path", child, "--trust_remote_code"),
        *("--train_file", "train.json", "--validation_file", "validation.json", "--output_dir", "out"),
        *("--do_train", "--do_eval", "--num_train_epochs", "6", "--learning_rate", "3e-3", "--use_cpu"),
        *("--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "true", *settings),
    ]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "eval_results.json").read_text())[metric] >= least
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {*CODE_FILES, "model.safetensors", "tokenizer.json"}
    assert list((tmp_path / "modules").rglob("modeling_nasbert.py")), "the child's own code was not asked for"

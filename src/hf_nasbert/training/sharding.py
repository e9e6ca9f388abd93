"""A super-net in parts (FSDP2): every process keeps its share of each operator, and the whole is there on demand."""

"""Everything tiny that tests build: texts, models, trainings, fine-tunings, records, searches and whole commands."""

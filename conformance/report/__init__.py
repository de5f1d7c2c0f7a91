"""One writer per format, each fed from checks.jsonl; a writer must not judge, select or change a result."""

"""From text to arrays and to results: tokenizers, `encode`, the tasks, `embed`."""

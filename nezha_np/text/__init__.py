"""From text to arrays and to results: tokenizers, `encode`, `fill_mask`, `embed`."""

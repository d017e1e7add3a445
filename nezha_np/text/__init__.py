"""From text and to text: tokenizers, `encode`, `fill_mask`, `embed`."""

"""What is computed: the arguments of a call, the model from embeddings to `forward`, task heads, generation."""

"""Jobs over a corpus: a file of texts, cut into shards that processes compute, and that a killed job keeps."""

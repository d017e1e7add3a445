"""Files that are not tensors: texts line by line, vectors row by row, and how a failure loses none of them."""

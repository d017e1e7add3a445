"""Files that are not tensors: texts line by line, vectors row by row; and how none of them is lost by a failure."""

"""What is read from files and written to them, one format a file: tensors and their names, lines of text, vectors."""

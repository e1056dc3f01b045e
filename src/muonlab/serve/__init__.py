"""A live page of the studies in a folder. It reads the files of the studies and writes nothing."""

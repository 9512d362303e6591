"""How far it goes: indexes of millions, trees of tiny files, files of 100 GiB, many publishers at once."""

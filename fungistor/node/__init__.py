"""One running fungistor process: config, wiring, run, command line."""

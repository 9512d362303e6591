"""Pure: bytes to blocks to CIDs and back, identical to IPFS: dag-pb, UnixFS, import profiles, reader."""

"""One file per response format: each turns a resolved CID into an `Answer`, in a worker thread."""

"""HTTP front doors: the IPFS path gateway on Starlette and uvicorn.

`app.create_app` joins them, `worker.serve` runs one worker on an inherited socket. The only port of this room is
`backend.Content`; the decisions (`paths`, `negotiation`, `conditions`, `ranges`, `errors`) do no I/O, `formats`
turn a resolved CID into an answer in a worker thread, and `streams` is the one place where bytes meet the loop.
"""

"""What a worker counts about its answers, under the names that other IPFS gateways use."""

from __future__ import annotations

from fungistor.node.metrics import Numbers

_KINDS = {
    "application/vnd.ipld.raw": "raw_block_get",
    "application/vnd.ipld.car": "car_stream_get",
    "application/x-tar": "tar_stream_get",
    "application/zip": "zip_stream_get",
    "application/vnd.ipfs.ipns-record": "ipns_record_get",
    "application/vnd.ipld.dag-json": "jsoncbor_get",
    "application/vnd.ipld.dag-cbor": "jsoncbor_get",
    "application/cbor": "jsoncbor_get",
}


def kind_of(content_type: str, etag: str) -> str:
    """What was answered, by its fields."""
    if "DirIndex-" in etag:
        return "unixfs_gen_dir_listing_get"
    return _KINDS.get(content_type.partition(";")[0].strip().lower(), "unixfs_file_get")


def count_answer(
    numbers: Numbers, *, namespace: str, status: int, kind: str, seconds: float, sent_bytes: int, broken: bool
) -> None:
    """Count one answer that has ended."""
    numbers.count("ipfs_http_gw_responses_total", code=str(status))
    numbers.count("fungistor_gateway_sent_bytes_total", by=sent_bytes)
    if broken:
        numbers.count("fungistor_gateway_broken_off_total")
    if status == 504 or broken:
        truncated = "true" if broken else "false"
        numbers.count("ipfs_http_gw_retrieval_timeouts_total", code=str(status), truncated=truncated)
    if namespace:
        numbers.count("ipfs_http_gw_request_types_total", gateway=namespace, type=kind)
        if status in (200, 206):
            numbers.observe(f"ipfs_http_gw_{kind}_duration_seconds", seconds, gateway=namespace)

"""What tenants have, as operators' tools are told it: so many by name, all others as one."""

from __future__ import annotations

from fungistor.catalog.tenant_view import TenantView

Json = dict[str, object]

TENANTS_TOLD_MAX = 100
"""A label for each of a million tenants would be a series for each in whatever watches this."""

OTHERS = "others"
_COUNTED = ("bytes", "objects", "stored")


def told_usage(tenants: TenantView) -> list[Json]:
    """The first tenants by number, each with what it has and may have; the sums of all later ones under one name."""
    lines: list[Json] = []
    sums = dict.fromkeys(_COUNTED, 0)
    everybody = tenants.all()
    for tenant in everybody:
        usage = tenants.usage(tenant.number)
        counted = {name: int(getattr(usage, name)) for name in _COUNTED}
        if len(lines) < TENANTS_TOLD_MAX:
            bounds = {"bytes_max": tenant.bytes_max, "objects_max": tenant.objects_max}
            lines.append({"tenant": tenant.name, **counted, **bounds})
        else:
            sums = {name: sums[name] + counted[name] for name in _COUNTED}
    if len(everybody) > TENANTS_TOLD_MAX:
        lines.append({"tenant": OTHERS, **sums, "bytes_max": None, "objects_max": None})
    return lines

"""A tenant's quota before an upload: what it has no room for is refused before a byte is stored.

Several publishers may each find room for themselves alone. Who of them has it is decided once more as their commands
are applied, so the quota holds whatever is found here.
"""

from __future__ import annotations

from collections.abc import Callable

from fungistor.catalog.catalog import Catalog
from fungistor.dag.cid import CID
from fungistor.errors import NotPermittedError
from fungistor.ids import TenantNumber
from fungistor.keys.ring import object_id

HINT = "`fungistor tenant show` tells what there is; unpublish something, or have the quota raised"


class Quota:
    """One tenant's, as this node's state has it now."""

    def __init__(self, catalog: Catalog, network_key: bytes, tenant: TenantNumber) -> None:
        self._catalog = catalog
        self._network_key = network_key
        self._tenant = tenant

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything to look at before a publish."""
        found = self._catalog.tenants.tenant(self._tenant)
        return found is None or found.bytes_max is not None or found.objects_max is not None

    def check(self, size: int, root: Callable[[], CID]) -> None:
        """Refuse an object of so many bytes of content. `root` is asked only where there is no room for another one: an
        object that the tenant has takes no more of it.

        Raises: NotPermittedError.
        """
        self._catalog.catch_up()
        tenants = self._catalog.tenants
        if not tenants.why_no_room(self._tenant, size, 1):
            return
        cid = root()
        record = self._catalog.record(object_id(self._network_key, self._tenant, cid.codec, cid.multihash))
        more = size - (0 if record is None else record.sizes.size)
        if reason := tenants.why_no_room(self._tenant, more, 1 if record is None else 0):
            raise NotPermittedError(reason, hint=HINT)

    def meter(self) -> Callable[[int], None]:
        """What to tell how many bytes were read so far of what has no known length.

        Raises, now and when told of more than there is room for: NotPermittedError.
        """
        self._catalog.catch_up()

        def check(size: int) -> None:
            if reason := self._catalog.tenants.why_no_room(self._tenant, size, 1):
                raise NotPermittedError(reason, hint=HINT)

        check(0)
        tenant, usage = self._catalog.tenants.tenant(self._tenant), self._catalog.tenants.usage(self._tenant)
        left = None if tenant is None or tenant.bytes_max is None else tenant.bytes_max - usage.bytes

        def told(size: int) -> None:
            if left is not None and size > left:
                check(size)

        return told

"""Names that can come to mean something else: IPNS keys and DNSLink.

`key` and `record` are pure: they know IPNS names and the records signed under them. `table` keeps records,
`dnslink` asks DNS, `resolver` follows a name to the content it means now, and for how long that holds.
"""

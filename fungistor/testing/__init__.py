"""The public test kit: fakes, fault plans, contract suites."""

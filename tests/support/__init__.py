"""What tests share: references, helpers and stand-ins. Fixtures are in conftest.py."""

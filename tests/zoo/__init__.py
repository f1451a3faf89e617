"""Networks that the tests of several formats share."""

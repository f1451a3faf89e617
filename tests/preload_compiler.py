"""What the command line's fork server imports before the first test asks for it."""

from tvm_secret.runtime import without_torch

with without_torch():
    import tvm.driver.tvmc
    import tvm.relay.build_module
    import tvm.relay.frontend  # noqa: F401

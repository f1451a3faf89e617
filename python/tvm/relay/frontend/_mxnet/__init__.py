"""The MXNet importer's parts: the files, the function under construction, and the operators by kind."""

from . import elementwise, layers, recurrent, tensor  # noqa: F401 (each registers its operators)

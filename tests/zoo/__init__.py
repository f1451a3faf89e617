"""Networks that the tests of several formats share."""

# Tan and Le, "EfficientNet" (arXiv:1905.11946), table 1, without squeeze and excitation.
# Repeats, kernel, stride of the first, expansion, output channels.
EFFICIENTNET_LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

"""What a module becomes in an ensemble, and what one member of it is."""

from cerewrite.ops.surgery.blocks import fan_in, member_weights
from cerewrite.ops.surgery.conv import conv_member, split_conv
from cerewrite.ops.surgery.depthwise import depthwise_conv_member, resize_depthwise_conv
from cerewrite.ops.surgery.linear import linear_member, split_linear
from cerewrite.ops.surgery.norms import (
    batch_norm_member,
    group_norm_member,
    layer_norm_member,
    prelu_member,
    resize_batch_norm,
    resize_group_norm,
    resize_layer_norm,
    resize_prelu,
    resize_rms_norm,
    rms_norm_member,
)

__all__ = [
    "batch_norm_member",
    "conv_member",
    "depthwise_conv_member",
    "fan_in",
    "group_norm_member",
    "layer_norm_member",
    "linear_member",
    "member_weights",
    "prelu_member",
    "resize_batch_norm",
    "resize_depthwise_conv",
    "resize_group_norm",
    "resize_layer_norm",
    "resize_prelu",
    "resize_rms_norm",
    "rms_norm_member",
    "split_conv",
    "split_linear",
]

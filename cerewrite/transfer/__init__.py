"""Carrying trained weights into members: which channels, in which groups, fitted how."""

from cerewrite.transfer.fitting import Fit, fit_block
from cerewrite.transfer.grouping import Interior, group_channels
from cerewrite.transfer.patches import Rows, read_rows, written_rows
from cerewrite.transfer.pieces import blocks_of, dense_weight, store_block, take_channels

__all__ = [
    "Fit",
    "Interior",
    "Rows",
    "blocks_of",
    "dense_weight",
    "fit_block",
    "group_channels",
    "read_rows",
    "store_block",
    "take_channels",
    "written_rows",
]

"""What was found out about layers, as node data of Google's Model Explorer."""

from __future__ import annotations

import json
import math

from cerewrite import ir

GRADIENT = ({"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#c46a1b"})
"""Colours from the least share to the largest."""


def node_data(analysis: ir.Analysis) -> str:
    """Each layer's share of the variance, by the name of its operator in the exported program.

    The file is a ``GraphNodeData`` of Model Explorer (``node_data_builder.py`` there): load a
    ``.pt2`` file of ``torch.export.save``, then this file, by its "Add per-node data" or
    ``--node_data_paths``. It fits models that `cerewrite` saw by ``torch.export``
    (`Analysis.frontend`); other tracers have operators of other names.

    Args:
        analysis: what was found out.

    Returns:
        JSON text, with a final newline.

    Example:
        >>> import cerewrite, torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3)))
        >>> found = cerewrite.analyze(net, torch.ones(1, 8), estimator="analytic", gain="he")
        >>> sorted(json.loads(node_data(found))["results"])
        ['linear', 'linear_1', 'linear_2']
    """
    nodes = {module.name: module.nodes for module in analysis.modules}
    results = {
        node: {"value": layer.share}
        for layer in analysis.layers
        for node in nodes.get(layer.name, ())
        if math.isfinite(layer.share)
    }
    return json.dumps({"results": results, "gradient": GRADIENT}, indent=2) + "\n"

"""What was expected of grouped convolutions of narrow members before the ways were timed."""

from __future__ import annotations

PREDICTED = """\
Written down before this table was measured, from a first look on the same kind of machine
(separate convolutions 1.3 to 1.75 times as fast as the grouped one at 12 to 16 channels a member;
below 8 nothing near) and from how oneDNN works (channels in blocks of 16 with AVX-512: a group of
another width falls to a slower kernel). Forward and backward, 3x3:

* Fastest way over the FLOPs' ratio, median: 8 or more at 4 channels (grouped), 2 to 3 at 8, 1.5 to
  2.5 at 12, 1.0 to 1.4 at 16 and 32, 1.5 to 2 at 24.
* Merged groups (k members in one group, zeros between them) cost k times the FLOPs at the speed of
  a wide kernel: fastest at 8 channels (k = 2) and at 4 (k = 4: about 4 to 5 over the FLOPs' ratio,
  half of what grouping takes), not above 12.
* Padding to 16 wins at 12 on contiguous maps of 16 and more; its copies cost more than it saves
  on 1x1 kernels.
* Separate convolutions win at 16 to 32 with 4 members, by 1.2 or so, and lose with 16 members.
* Turning a contiguous input to channels last and back wins nowhere by more than 10 %; an input
  that is channels last is quicker than a contiguous one at 16 and more.
* Patches and a batched product win nowhere for 3x3; for 1x1 (a batched product alone) at up to 12
  channels.
* Some way is over 10 % faster than grouping on 40 to 60 % of the geometries.
* Whole steps: a rewritten bottleneck ResNet gains 5 to 10 %, a plain CNN with members of 8 or 12
  gains 20 % or more.
"""

FOUND = """\
What came out otherwise than expected:

* Where oneDNN has kernels for a width (multiples of 8), little beats the grouped convolution at
  3x3, in either memory format: separate convolutions on 2 of 9 geometries at 16 channels, channels
  last; merged groups at 8 nowhere. The aims (1.3 over the FLOPs' ratio at 16, 2 at 8) are met by it
  on contiguous maps; channels last it takes 2.2 at 8.
* What loses is every other width on contiguous maps: about 7 over the FLOPs' ratio at 7, 2.2 even
  at 47. Filling up to a multiple of 8, not 16, takes a third to a half off that. The grid at
  first had none of these widths, and plans have them where nobody asks for multiples: they were
  added after its first run.
* A 1x1 convolution is quicker as a batched product at all multiples of 4, not up to 12 only.
* Turning to channels last and back wins at 5 and 10 channels on contiguous maps, by more than
  filling up does at 10; it is not built.
* Channels last, no way gains consistently; nothing is done there.
* Whole steps on one thread: 21 % where a plan's widths are uneven and its maps large, 3 to 6 % on
  bottleneck ResNets, nothing at multiples of 8. Forward alone gains less than with backward.

Built (`cerewrite.nn.NarrowConv2d`, as a rule and not by timing on the spot, as in block-diagonal
linear layers: equal runs compute equal values): in eager float32 on CPUs with oneDNN, contiguous,
filled up to multiples of 8 where that is little enough work, and a batched product for size 1 at
multiples of 4 on maps of 64 positions or more. A look at AVX2 gave the same; on two threads filling
up was slower at 12 and 20 channels, so that it is done on one thread only. Everywhere else, and for
tracing, compilation, export and `torch.func`, it is the stock grouped convolution.
"""

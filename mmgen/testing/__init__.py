"""The conformance kit: whether a visual tokenizer keeps what the contract promises.

A plugin's own test is `report = check(MyTokenizer); assert report.is_passed, report.to_text()`.
Importing this package loads no torch.
"""

from __future__ import annotations

from mmgen.testing.conformance import CHECKS, check
from mmgen.testing.pictures import draw_picture, psnr
from mmgen.testing.report import CheckResult, Report, Speed

__all__ = ["CHECKS", "CheckResult", "Report", "Speed", "check", "draw_picture", "psnr"]

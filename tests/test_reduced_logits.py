"""Reduced precision ends before the logits: ties count against a network, and eight bits tie often."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backend_inputs import images, make, session_of


@pytest.mark.parametrize("form", ["crop", "dense"])
def test_pytorch_computes_bf16_logits_in_fp32(form):
    session = session_of(make("pytorch", form=form, precision="bf16"))
    scores = session(images(16))
    session.close()
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert np.mean(scores == rounded) < 0.1

import pytest
import torch

from suite.paths import FLOW, VE


def test_the_signal_stays_whole_on_ve_and_fades_to_nothing_on_flow():
    assert [VE.alpha(sigma) for sigma in (0.0, 0.5, 80.0)] == [1.0, 1.0, 1.0]
    assert [FLOW.alpha(sigma) for sigma in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("path", (VE, FLOW), ids=("ve", "flow"))
def test_a_tensor_of_levels_is_scaled_as_each_level_is(path):
    sigmas = [0.0, 0.3, 1.0]
    assert path.alpha(torch.tensor(sigmas)).tolist() == pytest.approx([path.alpha(sigma) for sigma in sigmas])

import pytest
import torch

from suite.noise import Noise, gaussian

LIKE = torch.zeros(4, 3, 8, 8)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 2, -1])
def test_an_item_draws_the_same_bits_alone_and_in_a_batch_in_every_draw(seed):
    together = Noise(seed, 4)
    draws = [together(LIKE) for _ in range(3)]
    for i in range(4):
        alone = Noise(seed, [i])
        assert all(torch.equal(alone(LIKE[:1])[0], draw[i]) for draw in draws)


def test_item_i_of_seed_s_is_item_0_of_seed_s_plus_i():
    assert torch.equal(Noise(7, 4)(LIKE)[3], Noise(10, 1)(LIKE[:1])[0])
    assert [g.initial_seed() for g in Noise(7, 3).generators] == [7, 8, 9]
    assert [g.initial_seed() for g in Noise(2**64 - 1, 2).generators] == [2**64 - 1, 0]


def test_noise_is_unit_gaussian_float32_whatever_it_is_like():
    drawn = Noise(0, 4)(torch.zeros(4, 3, 64, 64, dtype=torch.bfloat16))
    assert drawn.dtype is torch.float32 and drawn.device.type == "cpu"
    assert drawn.mean().item() == pytest.approx(0, abs=0.02) and drawn.std().item() == pytest.approx(
        1, abs=0.02
    )


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    Noise(0, 2)(LIKE[:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_of_another_size_is_refused_in_words():
    with pytest.raises(ValueError, match="the batch has 4 items; this noise is for 2"):
        Noise(0, 2)(LIKE)


@pytest.mark.parametrize("shared", (0.0, 0.3, 0.8))
def test_frames_have_as_much_of_their_noise_in_common_as_is_said_and_it_stays_unit_gaussian(shared):
    drawn = Noise(0, 2, shared)(torch.zeros(2, 4, 6, 64, 64))
    assert drawn.std().item() == pytest.approx(1, abs=0.02)
    first, last = drawn[:, :, 0].flatten(), drawn[:, :, 5].flatten()
    assert torch.corrcoef(torch.stack([first, last]))[0, 1].item() == pytest.approx(shared, abs=0.03)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    alone = [gaussian((4, 6, 64, 64), generator, shared) for generator in generators]
    assert torch.equal(drawn, torch.stack(alone))

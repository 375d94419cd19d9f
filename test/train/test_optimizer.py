"""The average of the weights follows its formula."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from yolact_ros.train.optimizer import average_weights  # noqa: E402


@pytest.mark.parametrize("resumed_after", [None, 2])
def test_the_average_of_weights_and_buffers_follows_its_formula(resumed_after):
    model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.zero_()
    average = average_weights(model, 0.25)
    expected = {"0.weight": 0.0, "1.running_mean": 0.0}
    for step in range(1, 5):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].running_mean.fill_(10 * step)
        average.update_parameters(model)
        decay = (2 / 11, 3 / 12, 0.25, 0.25)[step - 1]
        for name, value in (("0.weight", step), ("1.running_mean", 10 * step)):
            expected[name] = decay * expected[name] + (1 - decay) * value
        if step == resumed_after:
            weights = average.module.state_dict()
            average = average_weights(model, 0.25)
            average.module.load_state_dict(weights)
            average.n_averaged.fill_(step + 1)
    state = average.module.state_dict()
    for name, value in expected.items():
        assert state[name].flatten().tolist() == pytest.approx([value] * state[name].numel())
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())

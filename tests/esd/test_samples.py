import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fpstab.esd.samples import dense, float_array, positive_sample, sorted_sample


@given(st.lists(st.floats(allow_nan=False), max_size=50))
def test_a_sample_is_sorted_and_the_input_is_left_alone(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    assert sorted_sample(array).tolist() == sorted(values)
    assert sorted_sample(torch.tensor(values, dtype=torch.float64)).tolist() == sorted(values)
    assert array.tolist() == values


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        (3.0, 1.0, 2.0),
        range(1, 4),
        np.array([3, 1, 2], dtype=np.uint8),
        np.array([3, 1, 2], dtype=np.float16),
        torch.tensor([3, 1, 2]),
        torch.tensor([3.0, 1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([3.0, 1.0, 2.0], requires_grad=True),
        torch.tensor([3.0, 1.0, 2.0, 9.0])[:3],
        torch.nn.Parameter(torch.tensor([3.0, 1.0, 2.0])),
    ],
)
def test_what_holds_a_sample(values: object) -> None:
    array = sorted_sample(values)  # type: ignore[arg-type]
    assert array.dtype == np.float64
    assert array.tolist() == [1, 2, 3]


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 5), (0, 2)])
def test_not_one_dimensional(shape: tuple[int, ...]) -> None:
    for values in (np.ones(shape), torch.ones(shape)):
        with pytest.raises(ValueError, match="one-dimensional") as error:
            sorted_sample(values)
        assert str(shape) in str(error.value)
        assert float_array(values).shape == shape


@pytest.mark.parametrize(
    "values",
    [np.ones(3, complex), torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.cfloat).conj(), [1j]],
)
def test_complex_values_have_no_order(values: object) -> None:
    with pytest.raises(TypeError, match=r"complex.*absolute values"):
        sorted_sample(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "code", "says"),
    [
        ([], "ok", ""),
        ([5e-324, 1.0], "ok", ""),
        ([0.0, 1.0], "not_positive", "1 of 2 values are not positive"),
        ([-2.0, -1.0, 0.0, 4.0], "not_positive", "3 of 4"),
        ([1.0, math.inf], "not_finite", "1 of 2 values are not finite"),
        ([-math.inf, 1.0, math.nan], "not_finite", "2 of 3"),
        ([-1.0, math.nan], "not_finite", "1 of 2"),  # what is not finite comes first
    ],
)
def test_positive_sample(values: list[float], code: str, says: str) -> None:
    status = positive_sample(np.array(values))
    assert status.code == code
    assert says in status.message


def test_dense_weights() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    frozen = matrix.copy()
    frozen.setflags(write=False)
    expected = torch.from_numpy(matrix)
    for weight in (matrix, frozen, np.asfortranarray(matrix), matrix[::-1][::-1], expected, expected.to_sparse()):
        assert torch.equal(dense(weight), expected)
    assert dense(expected).data_ptr() == expected.data_ptr()  # no copy where none is needed
    assert not dense(torch.nn.Parameter(expected)).requires_grad
    complex_weight = torch.complex(expected, expected)
    assert dense(complex_weight.conj()).numpy().tolist() == (matrix - 1j * matrix).tolist()
    assert dense(complex_weight.conj().imag).numpy().tolist() == (-matrix).tolist()
    assert dense(torch.empty(2, 3, device="meta")).is_meta


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel and other:UserWarning")
def test_quantised_weights_are_expanded() -> None:
    coded = torch.quantize_per_tensor(torch.arange(6.0).reshape(2, 3), 0.5, 0, torch.qint8)
    assert dense(coded).tolist() == [[0, 1, 2], [3, 4, 5]]

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are tiny here: threads only cost."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)

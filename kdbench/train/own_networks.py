"""Networks of a user's own loop, behind the interface of kdbench's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method import Method, ModelFacts, Outputs
from kdbench.models.wrapper import Normalised
from kdbench.utils.needs import Needs, Role


class Logits(nn.Module):
    """A module from images to logits as a network that yields nothing else."""

    facts = ModelFacts(
        stages=(),
        feature_channels=0,
        feature_size=(0, 0),
        embedding_size=0,
        classify=lambda embedding: embedding,
        linear_head=False,
        has_preact=False,
    )

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, needs: Needs) -> Outputs:
        """The logits [B, C], in fp32. Raises KdbenchError where the module yields something else."""
        found = self.model(images)
        logits = getattr(found, "logits", found)  # transformers' models return an object that holds them
        if not isinstance(logits, Tensor):
            raise KdbenchError(
                f"the model {type(self.model).__name__} returns {type(found).__name__} in place of logits [B, C]; wrap "
                "it in a module that returns them"
            )
        return Outputs(logits.float())


def adapted(method: Method, role: Role, model: nn.Module, size: int | None) -> tuple[nn.Module, ModelFacts]:
    """The model as a network that yields what the method reads, and its facts."""
    needs = method.needs.of(role)
    if needs == Needs(needs.views, needs.teacher, index=needs.index):
        try:
            return Normalised(model), Logits.facts
        except KdbenchError:  # no timm model
            return Logits(model), Logits.facts
    if size is None:
        raise KdbenchError(f"{method.name} reads more than logits; give the images' size= in pixels per side")
    network = Normalised(model)
    return network, network.facts(size)


def run(network: nn.Module, images: Mapping[str, Tensor], needs: Needs) -> dict[str, Outputs]:
    """The outputs of a network of `adapted`, by view."""
    return {view: network(pixels, needs) for view, pixels in images.items()}

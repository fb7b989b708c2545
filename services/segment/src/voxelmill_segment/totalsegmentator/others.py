"""Every task but `total` and `total_mr`: the package's own steps, with our networks in nnU-Net's place.

Cropping to a rough answer, cascades, merging and the mending afterwards differ from task to task; here the package
does them itself, so that its labels are the labels. What it asks nnU-Net's processes for, the predictor answers in
this one. The files that it passes from step to step lie in the home and are gone at the end.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.errors import LibraryRefusedError
from voxelmill_segment.totalsegmentator.home import contained, refuse_downloads
from voxelmill_segment.totalsegmentator.window import Told
from voxelmill_shared.plan import Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.chain import Source
    from voxelmill_segment.totalsegmentator.predictor import Predictor
    from voxelmill_segment.totalsegmentator.tasks import Request
    from voxelmill_shared.work import Report


def label_other(source: Source, request: Request, predictor: Predictor, report: Report) -> npt.NDArray[np.uint8]:
    """Label a volume with any task.

    Parameters
    ----------
    source
        The volume.
    request
        The task and the wanted classes.
    predictor
        The networks.
    report
        Is told of steps and tiles; may raise to end the work.

    Returns
    -------
    ndarray
        uint8 (x, y, z) in the source's own grid: 0, or the label of a wanted class.

    Raises
    ------
    MissingWeightsError
        If weights that it asks for are not there.
    LibraryRefusedError
        If it ends the work, or breaks: its mending of `vertebrae_pp` does where no vertebra was found.
    """
    from totalsegmentator import nnunet, python_api  # noqa: PLC0415 - after the home is prepared, and only if asked for

    answers = _Answers(request, predictor, report)
    said = io.StringIO()
    with contained(), _in_place(nnunet, python_api, answers), contextlib.redirect_stdout(said):
        try:
            image = python_api.totalsegmentator(
                source.image,
                None,
                ml=True,
                task=request.task,
                fast=request.resolution is Resolution.FAST,
                roi_subset=list(request.roi_subset) if request.roi_subset else None,
                device="cpu",  # for its own resampling; the networks are where the predictor has them
                quiet=True,
            )
        except SystemExit as error:
            last = (said.getvalue().strip().splitlines() or [""])[-1]
            reason = error.code if isinstance(error.code, str) else last or "it gave no reason"
            raise LibraryRefusedError(f"TotalSegmentator ended the task {request.task}: {reason}") from None
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise LibraryRefusedError(
                f"TotalSegmentator broke in the task {request.task}: {type(error).__name__}: {error}"
                f" ({Path(place.filename).name}, line {place.lineno})"
            ) from None
        except ConnectionError as error:
            raise LibraryRefusedError(
                f"TotalSegmentator wanted to reach the network for the task {request.task} and was not let: {error}"
            ) from None
    labels: npt.NDArray[np.uint8] = np.asanyarray(image.dataobj)
    if request.subset:
        table = np.zeros(256, np.uint8)
        table[list(request.classes)] = list(request.classes)
        labels = table[labels]
    return labels


@dataclass(frozen=True, slots=True)
class _Answers:
    """What stands in the place of `nnunet.nnUNetv2_predict`."""

    request: Request
    predictor: Predictor
    report: Report

    def predict(
        self,
        dir_in: Any,
        dir_out: Any,
        task_id: int,
        model: str = "3d_fullres",
        folds: Sequence[int] | None = None,
        trainer: str = "nnUNetTrainer",
        tta: bool = False,  # noqa: ARG002 - it is called with it
        num_threads_preprocessing: int = 3,  # noqa: ARG002 - it is called with it
        num_threads_nifti_save: int = 2,  # noqa: ARG002 - it is called with it
        plans: str = "nnUNetPlans",
        device: Any = "cuda",  # noqa: ARG002 - it is called with it
        quiet: bool = False,  # noqa: ARG002 - it is called with it
        step_size: float = 0.5,
        save_probabilities_path: Any = None,  # noqa: ARG002 - it is called with it
        use_cropped_logits_resampling: bool = False,  # noqa: ARG002 - only with higher_order_resampling
    ) -> None:
        """Label every case of a folder into another."""
        from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder  # noqa: PLC0415 - see above
        from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS  # noqa: PLC0415 - see above

        network = library.Network(
            dataset=task_id,
            folder=TASK_ID_WEIGHTS_CONFIGS[task_id]["foldername"],
            trainer=trainer,
            plans=plans,
            configuration=model,
            folds=None if folds is None else tuple(folds),
            spacing=None,
            labels=(),
        )
        loaded = self.predictor.model(network).nnunet
        ending = loaded.dataset_json["file_ending"]
        files = loaded.plans_manager.image_reader_writer_class()
        cases = create_lists_from_splitted_dataset_folder(str(dir_in), ending)
        tell = Told(self.report, self._step(task_id), networks=len(cases))
        for number, channels in enumerate(cases):
            tell.before = number
            image, properties = files.read_images(channels)
            labels = self.predictor.labels(network, image, properties["spacing"], step_size, tell)
            case = Path(channels[0]).name.removesuffix(ending).rpartition("_")[0]
            files.write_seg(labels, str(Path(dir_out, case + ending)), properties)

    def _step(self, dataset: int) -> str:
        """Name the step that a network belongs to."""
        if dataset in {network.dataset for network in self.request.networks}:
            return "predict"
        if dataset in {network.dataset for network in self.request.refining}:
            return "refine"
        return "rough"


@contextlib.contextmanager
def _in_place(nnunet: Any, python_api: Any, answers: _Answers) -> Iterator[None]:
    """Let the package ask us instead of nnU-Net, and say `cpu` where it repeats its device (it says None)."""
    refuse_downloads()
    predict, device = nnunet.nnUNetv2_predict, python_api.convert_device_to_string
    nnunet.nnUNetv2_predict = answers.predict
    python_api.convert_device_to_string = lambda _: "cpu"
    try:
        yield
    finally:
        nnunet.nnUNetv2_predict = predict
        python_api.convert_device_to_string = device

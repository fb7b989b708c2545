"""What is mirrored from TotalSegmentator and nnU-Net stands as it stood when it was mirrored.

An upgrade that moves any of it fails here: read what has changed, bring `chain`, `window`, `preprocessing` or `others`
in line, see that the agreement test passes, and only then write down the new digest.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from pathlib import Path

import pytest

from conftest import missing
from voxelmill_segment.totalsegmentator import library

MIRRORED = {
    "totalsegmentator.nnunet:nnUNet_predict_image": "7518980b99e59505",
    "totalsegmentator.nnunet:nnUNetv2_predict": "1172be1c7a6d5d4a",
    "totalsegmentator.python_api:totalsegmentator": "b8ff5820be418fe4",
    "totalsegmentator.python_api:get_task_config": "ab4dd585a7f904f9",
    "totalsegmentator.resampling:change_spacing": "ac8096c17846f46e",
    "totalsegmentator.resampling:resample_img": "bd5d43dd41545d1f",
    "totalsegmentator.cropping:crop_to_mask": "ae1de097548dd9b5",
    "totalsegmentator.cropping:get_bbox_from_mask": "5f53e38b7c2ea266",
    "totalsegmentator.cropping:crop_to_bbox_nifti": "165f92f9b6fb912b",
    "totalsegmentator.cropping:undo_crop": "496fca6742103807",
    "totalsegmentator.alignment:undo_canonical": "afd3bb591c3857b8",
    "totalsegmentator.config:setup_nnunet": "b8f854c6032e942f",
    "totalsegmentator.config:get_totalseg_dir": "56552aadeaeca549",
    "totalsegmentator.config:send_usage_stats": "06b21be25a38bf6a",
    "totalsegmentator.libs:download_pretrained_weights": "82bcbb9650d29a88",
    "totalsegmentator.nnunet_runtime_patches:convert_predicted_logits_to_segmentation_with_correct_shape": "b411481bd1df654f",
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.initialize_from_trained_model_folder": "e0e2c63d37227aed",
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.predict_logits_from_preprocessed_data": "3c855fd75873d670",
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor.predict_sliding_window_return_logits": "d0cddd2db091525e",
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor._internal_predict_sliding_window_return_logits": "a17fc47faa13d745",
    "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor._internal_get_sliding_window_slicers": "15f68d698dc77e6a",
    "nnunetv2.inference.sliding_window_prediction:compute_gaussian": "a8ed38f564537064",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor:DefaultPreprocessor.run_case_npy": "77d120b6e9749148",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor:DefaultPreprocessor._normalize": "6e429d7058da1cb1",
    "nnunetv2.preprocessing.cropping.cropping:crop_to_nonzero": "3c84e1ac2e0501fa",
    "nnunetv2.preprocessing.resampling.default_resampling:resample_data_or_seg": "5e3a873c1822dd2b",
    "nnunetv2.utilities.label_handling.label_handling:LabelManager.convert_probabilities_to_segmentation": "f9ea946082320fc6",
}


def source_digest(place: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a function's source, which is read and not imported."""
    module, _, name = place.partition(":")
    package, *rest = module.split(".")
    root = importlib.util.find_spec(package).submodule_search_locations[0]
    text = Path(root, *rest).with_suffix(".py").read_text(encoding="utf-8")
    found: ast.AST = ast.parse(text)
    for part in name.split("."):
        found = next(one for one in found.body if getattr(one, "name", None) == part)
    return hashlib.sha256(ast.get_source_segment(text, found).encode()).hexdigest()[:16]


@pytest.mark.parametrize("place", MIRRORED)
def test_mirrored_function_has_not_moved(place: str) -> None:
    """The source of each function that ours stands for is the one that was read."""
    if library.installed_version() is None:
        missing("TotalSegmentator is not installed (tools/setup totalsegmentator)")
    assert source_digest(place) == MIRRORED[place]

"""The `TotalSegmentator` command as it is, but for one thing: `totalsegmentator_command.py ARGUMENTS OF THE COMMAND`.

nnU-Net imports the module of every trainer to find one by its name, and some need libraries that are left out of this
installation. Here the one module is found by its text, which saves the command some seconds.

What is imported at the top is what the command's own script imports there: the processes that nnU-Net starts do so too.
"""

from __future__ import annotations

from totalsegmentator.bin.TotalSegmentator import main

if __name__ == "__main__":
    from totalsegmentator import nnunet

    from voxelmill_segment.totalsegmentator.trainers import find_trainer

    nnunet.recursive_find_trainer_class_by_name = find_trainer
    main()

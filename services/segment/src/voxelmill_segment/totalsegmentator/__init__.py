"""The model `totalsegmentator`: its networks kept in memory, its label maps voxel for voxel, and none of its habits.

`library` reads what the installed package says of its classes, tasks and licences; `tasks` and `weights` choose what
to run and with what; `home` keeps the package from the network and from the user's home; `predictor` keeps the
networks warm; `chain` takes a volume to a label map in memory for the tasks `total` and `total_mr`, `others` takes it
through the package's own steps for every other open task; `segmenter` is the model that the service knows.
"""

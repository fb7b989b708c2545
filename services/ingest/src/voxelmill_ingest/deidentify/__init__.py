"""De-identification after the Basic Application Level Confidentiality Profile and some of its options (PS3.15 Annex E).

What is done to which attribute stands in `profile.tsv`, the Standard's own table, and nowhere else. An original is read
only in a child process (`work`), which writes a copy; what leads back from the copy to the original is kept encrypted
(`mapping`). Nothing here is imported unless de-identification is on: it needs the extra `voxelmill-ingest[deidentify]`.
"""

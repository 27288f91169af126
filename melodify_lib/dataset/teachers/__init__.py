"""Teachers write the dataset's examples: each is given a choice, and answers with a caption and the music for it."""

"""Beyond one machine: bulk captioning on Ray Data, and the captioner on Ray Serve.

Reading order:

    caption         the command: python -m scale.caption INPUT ... --out DIR
    command_line    its words
    run             a run of a job, from the input to the table at the end
    plan job        all pictures in blocks; what makes two runs the same job
    pipeline        the two stages on Ray
    cluster         starts Ray or joins a cluster
    inputs/         entry, listing, extensions, tar_members, parquet_rows; ahead, reading
    stages/         blocks, decoding, captioning, deaths
    output/         store, rows, parts, assembly
    first_blocks    ends a job in which no picture can be read
    picture_error   why a picture has no caption
    report sample   progress and the table at the end; a page of a few pictures
    serve           the command: python -m scale.serve
    serving/        application, replica, http_request, counts
"""

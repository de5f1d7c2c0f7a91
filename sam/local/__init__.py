"""Lambda, API Gateway and CloudWatch on this machine, for one template; it never imports the function.

What a call passes, and what stands behind boto3:

    gateway             HTTP to event and back, by the routes of `stack`, which reads the template
    functions           versions, aliases, settings; pool: an environment per concurrent call; throttle: rates, quotas
    environment         one of them, with runtime (its Runtime API), logs (its lines), cpu (its share), processes
    host, launch        make what surrounds it: namespaces, syscalls (what Lambda refuses), scratch (directories)

    aws                 takes AWS's APIs apart: lambda_api and policy, logs_api, metrics, and moto for the rest
    log_store           what logs_api, live_tail, insights and filter_pattern read
    metrics             with metric_math

    console             a page to try the interpreter from
"""

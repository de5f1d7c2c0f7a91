# Deployment; the Makefile includes this. Settings: etc/environment.sh (see its example), the environment over it.

.PHONY: layer layer.build layer.package layer.deploy
layer: .venv/.ready ## build, package and deploy the layer; its ARN goes to etc/environment.sh
	@$(PY) -m sam.deploy layer
layer.build: .venv/.ready ## the layer alone, without docker and AWS; prints what takes how much of 250 MB
	@$(PY) -m sam.deploy layer.build
layer.package: .venv/.ready ## upload the built layer
	@$(PY) -m sam.deploy layer.package
layer.deploy: .venv/.ready ## deploy the uploaded layer
	@$(PY) -m sam.deploy layer.deploy

.PHONY: apigw apigw.package apigw.deploy apigw.delete
apigw: .venv/.ready ## package and deploy function and API; endpoint and key go to .env
	@$(PY) -m sam.deploy apigw
apigw.package: .venv/.ready ## build and upload the function
	@$(PY) -m sam.deploy apigw.package
apigw.deploy: .venv/.ready ## deploy what was uploaded
	@$(PY) -m sam.deploy apigw.deploy
apigw.delete: .venv/.ready ## delete function and API, after asking
	@$(PY) -m sam.deploy apigw.delete

.PHONY: validate
validate: .venv/.ready ## the templates by sam validate, cfn-lint, checkov and our own rules
	@sh sam/validate.sh

# JWT at the edge, private integration over TLS, a rate for the whole API, access logs.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                            = "orders-test"
  vpc_id                          = "vpc-0"
  subnet_ids                      = ["subnet-a", "subnet-b", "subnet-c"]
  load_balancer_security_group_id = "sg-2"
  listener_arn                    = "arn:aws:elasticloadbalancing:us-east-1:111122223333:listener/app/x/1/2"
  server_name                     = "api.example.com"
  issuer                          = "https://issuer.example.com"
  logs_kms_key_arn                = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days              = 90
}

run "door" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_route.this.authorization_type == "JWT" && one(aws_apigatewayv2_authorizer.jwt.jwt_configuration).issuer == "https://issuer.example.com"
    error_message = "no route without a token"
  }

  assert {
    condition     = aws_apigatewayv2_integration.this.connection_type == "VPC_LINK" && one(aws_apigatewayv2_integration.this.tls_config).server_name_to_verify == "api.example.com"
    error_message = "private and verified"
  }

  assert {
    condition     = aws_apigatewayv2_integration.this.timeout_milliseconds > 5000
    error_message = "longer than the service's own deadline"
  }

  assert {
    condition     = one(aws_apigatewayv2_stage.this.default_route_settings).throttling_rate_limit == 500
    error_message = "a rate"
  }

  assert {
    condition     = aws_apigatewayv2_api.this.disable_execute_api_endpoint
    error_message = "the default name is off"
  }
}

run "refuses_a_plain_issuer" {
  command = plan

  variables {
    issuer = "http://issuer.example.com"
  }

  expect_failures = [var.issuer]
}
